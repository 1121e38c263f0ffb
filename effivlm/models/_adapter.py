"""What all families share: load, prepare a sample, encode images, build a prompt, prefill, step.

A family file says only what differs: its transformers class, where features come from, how positions run.
"""

from __future__ import annotations

import gc
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from effivlm.decoding.caches import DecodingCache, PromptCache
from effivlm.decoding.generation import NO_RULES
from effivlm.models._ahead import Ahead, Prepared
from effivlm.models._compressed import opened
from effivlm.models._generation import end_tokens, rules_of
from effivlm.models._guards import disagreeing, few, foreign, told, unfit
from effivlm.models._memory import needs
from effivlm.models._pictures import plain
from effivlm.models._presenting import BACKENDS, Presented
from effivlm.models._shapes import build
from effivlm.models._sources import RANDOM, ModelSource, bring, verify
from effivlm.models._text import Turns
from effivlm.models._torchvision import ensure_torchvision
from effivlm.models._visual import Prompt as Prompt
from effivlm.models._visual import Visual as Visual
from effivlm.models._visual import grid as grid
from effivlm.records import Sample, Unsupported
from effivlm.seams.angles import Angles
from effivlm.seams.hooks import seams
from effivlm.seams.meters import Within, untimed
from effivlm.seams.pruning import adding
from effivlm.seams.rotary import growing, prefilling, steady


class Adapter(Presented, Prepared):
    """One loaded model with its processor.

    Class attributes: `model_type` as in config.json; `checkpoints` name -> folder, hub id or `package:` path;
    `positions_after_pruning`, "compact" (new positions 0..N'-1) or "original" (a kept token keeps its own).
    """

    model_type: ClassVar[str]
    checkpoints: ClassVar[Mapping[str, str]] = {}
    positions_after_pruning: ClassVar[str] = "compact"
    class_name: ClassVar[str]

    def __init__(self, model: Any, processor: Any, source: ModelSource, weights: str = "trained") -> None:
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.turns = Turns(processor)
        self.source = source
        self.weights = weights
        self.text = model.get_decoder()
        self.layers: Sequence[nn.Module] = self.text.layers
        self.growing = growing(self.text)
        self.head: nn.Module = model.get_output_embeddings()
        self.device: torch.device = model.get_input_embeddings().weight.device
        self.devices = devices_of(model)
        self.dtype: torch.dtype = model.get_input_embeddings().weight.dtype
        self.eos: frozenset[int] = end_tokens(model.generation_config, processor.tokenizer, weights)
        self.rules = NO_RULES
        self.ahead, self.processing = Ahead(), RLock()

    @classmethod
    def load(cls, source: ModelSource, device: str, dtype: str, kernels: str = "auto") -> Adapter:
        """Load weights (safetensors only, no remote code) and processor; those of a hub repository are fetched first.

        A model that does not fit the one device is spread over all GPUs by accelerate. Compressed weights are read by a kernel
        where there is one and `kernels` is "auto"; else ("none") they are dequantised.

        Raises:
            ValueError: the checkpoint is damaged or incomplete, does not fit itself, or needs what is not done here; names the
                folder and what is wrong.
        """
        ensure_torchvision()
        reading = device if kernels == "auto" else "cpu"
        _check_room(source, device, dtype, reading)
        if source.source.startswith(RANDOM):
            return cls(*build(source.source.removeprefix(RANDOM), device, dtype), source, weights="random")
        bring(source)
        _check_room(source, device, dtype, reading)  # now that the size is known for certain
        verify(source)
        processor, config = cls._described(source)
        import transformers

        try:
            place = _placement(source, device, dtype, reading)
            kind, folder = getattr(transformers, cls.class_name), Path(source.source)
            model, info, weights = opened(kind, folder, config, place, dtype, kernels == "auto")
        except Exception as error:  # libraries have many kinds of their own; each means that this checkpoint is no good
            raise ValueError(f"model {source.name!r}: {source.source} cannot be loaded ({told(error)})") from error
        wrong = {
            "missing": sorted(info.get("missing_keys") or ()),
            "of another shape": sorted(str(name) for name in info.get("mismatched_keys") or ()),
            "of no part of it": foreign(info.get("unexpected_keys") or (), config),
        }
        if said := [f"tensors {word}: {few(names)}" for word, names in wrong.items() if names]:
            raise ValueError(f"model {source.name!r}: {source.source} does not fit its architecture: {'; '.join(said)}")
        return cls(model, processor, source, weights)

    @classmethod
    def _described(cls, source: ModelSource) -> tuple[Any, Any]:
        """Processor and configuration of a folder, once they fit each other and themselves."""
        import transformers

        try:
            config = transformers.AutoConfig.from_pretrained(source.source, trust_remote_code=False)
            processor = transformers.AutoProcessor.from_pretrained(source.source, trust_remote_code=False)
            # the two backends differ by up to 0.015 in pixel values, and which one is found depends on the machine
            processor.image_processor = transformers.AutoImageProcessor.from_pretrained(
                source.source, backend=BACKENDS[0]
            )
            wrong = unfit(config) or disagreeing(config, processor)
        except Exception as error:  # as above
            raise ValueError(f"model {source.name!r}: {source.source} cannot be read ({told(error)})") from error
        if wrong:
            raise ValueError(f"model {source.name!r}: the configuration of {source.source} cannot be run: {wrong}")
        return processor, config

    def close(self) -> None:
        """Free the model's memory."""
        del self.model, self.text, self.layers, self.head, self.growing
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def choose_as(self, generation: str) -> None:
        """Choose tokens as greedy `generate` does with this "checkpoint", or plainly "greedy".

        Raises:
            ValueError: the checkpoint asks for what is not done here.
        """
        self.rules = NO_RULES
        if generation == "checkpoint":
            vocab = self.model.config.get_text_config().vocab_size
            self.rules = rules_of(self.model.generation_config, vocab, self.eos, f"model {self.source.name!r}")

    @contextmanager
    def seams(self) -> Iterator[None]:
        """Inside, attention runs through the wrapper; afterwards the model is as it was."""
        with seams(self.model), steady(self.growing), torch.inference_mode():
            yield

    def given(self, sample: Sample) -> Mapping[str, Any]:
        """Processor output for one sample: token ids [1, N], pixel values and grids.

        Raises:
            Unsupported: the sample is a video, and the family takes none.
        """
        visual: dict[str, Any] = {}
        if sample.images:
            # nested: all belong to one sample, which decides whether LLaVA-OneVision tiles them
            pictures = [plain(image) for image in sample.images]
            visual = {"images": [pictures], **self.limiting(self.fitting(sample, pictures))}
        if sample.video:
            if getattr(self.processor, "video_processor", None) is None:
                raise Unsupported(
                    f"model {self.source.name!r} ({self.model_type}) takes no videos, and {sample.id!r} is one"
                )
            visual |= self.video_arguments(sample)
        inputs: Mapping[str, Any] = self.turns.inputs(sample, visual, self.presenting.messages())
        return inputs

    def video_arguments(self, sample: Sample) -> dict[str, Any]:
        """Arguments of the processor for the frames of one video, sampled already."""
        given: dict[str, Any] = {"videos": [[plain(frame) for frame in sample.video]], "do_sample_frames": False}
        if sample.fps:
            count = len(sample.video)
            about = {"fps": sample.fps, "total_num_frames": count, "frames_indices": list(range(count))}
            given["video_metadata"] = [[about]]
        return given

    def visual_positions(self, inputs: Mapping[str, Any]) -> Tensor:
        """Positions [V] of all visual placeholders in the prompt, ascending."""
        ids = inputs["input_ids"][0]
        found = torch.zeros_like(ids, dtype=torch.bool)
        for token in self.placeholders():
            found |= ids == token
        return found.nonzero()[:, 0]

    def placeholders(self) -> list[int]:
        """Token ids that stand for visual features."""
        config = self.model.config
        tokens = (getattr(config, name, None) for name in ("image_token_id", "video_token_id"))
        return sorted({token for token in tokens if token is not None})

    @abstractmethod
    def encode(self, inputs: Mapping[str, Any], looking: bool = False) -> Visual:
        """Run the vision tower and the projector; features come in the order of their placeholders.

        With `looking`, also what the layer of the tower that feeds the projector showed.
        """

    def positions(self, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        """Position ids of the whole prompt and the position of the first generated token."""
        length = inputs["input_ids"].shape[1]
        return torch.arange(length, device=self.device)[None], length

    def prompt(self, inputs: Mapping[str, Any], visual: Visual) -> Prompt:
        """Embed the text and put the visual features in their places.

        Raises:
            ValueError: features and placeholders differ in number.
        """
        ids = inputs["input_ids"]
        places = self.visual_positions(inputs)
        if len(places) != sum(visual.counts):
            raise ValueError(f"{sum(visual.counts)} visual features for {len(places)} placeholders in the prompt")
        embeds = self.model.get_input_embeddings()(ids).clone()
        image = torch.full_like(ids[0], -1)
        if len(places):
            embeds[0, places] = torch.cat(visual.features).to(embeds)
            counts = torch.tensor(visual.counts, device=self.device)
            image[places] = torch.repeat_interleave(torch.arange(len(counts), device=self.device), counts)
        positions, following = self.positions(inputs)
        deep = None
        if visual.deep is not None:
            deep = embeds.new_zeros(len(visual.deep[0]), *embeds.shape[1:])
            deep[:, places] = torch.cat(visual.deep, 1).to(embeds)
        return Prompt(embeds, positions, following, image, deep)

    def pruned(self, prompt: Prompt, kept: Tensor, features: Tensor | None = None) -> Prompt:
        """The prompt with only its `kept` entries (ascending positions [K]); `features` replace the visual ones kept."""
        embeds = prompt.embeds[:, kept]
        image = prompt.image[kept]
        if features is not None:
            embeds = embeds.clone()
            embeds[0, image >= 0] = features.to(embeds)
        deep = None if prompt.deep is None else prompt.deep[:, kept]
        cut = replace(prompt, embeds=embeds, image=image, positions=prompt.positions[..., kept], deep=deep)
        if self.positions_after_pruning == "original":
            return cut
        return replace(cut, positions=torch.arange(len(kept), device=self.device)[None], next_position=len(kept))

    def prefill(self, prompt: Prompt, cache: PromptCache, within: Within = untimed) -> Tensor:
        """Run the decoder over a prompt; fills `cache`, returns the logits [vocab] of its last position, made `within` the part
        "first"."""
        return self.prefill_all(prompt, cache, lambda: slice(-1, None), within)[0]

    def prefill_all(
        self, prompt: Prompt, cache: PromptCache, ends: Callable[[], slice | list[int]], within: Within = untimed
    ) -> Tensor:
        """As `prefill`, of several prompts one behind the other: logits [n, vocab] of the places that `ends` names when the
        decoder is through."""
        with prefilling(self.growing, prompt.next_position), adding(self.layers, prompt.deep):
            hidden = self.text(
                inputs_embeds=prompt.embeds, position_ids=prompt.positions, past_key_values=cache, use_cache=True
            ).last_hidden_state
        return within("first", lambda: self._logits(hidden[:, ends()])[0])

    def step(self, tokens: Tensor, positions: Tensor, cache: DecodingCache) -> Tensor:
        """Feed tokens [B, Q] at positions [B, Q] to a batch of caches; returns logits [B, Q, vocab]."""
        embeds = self.model.get_input_embeddings()(tokens)
        hidden = self.text(
            inputs_embeds=embeds, position_ids=self.step_positions(positions), past_key_values=cache, use_cache=True
        ).last_hidden_state
        return self._logits(hidden)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits [B, Q, vocab] on the model's device, where its head may not be."""
        logits: Tensor = self.head(hidden).to(self.device)
        return logits

    def angles(self, positions: Tensor, dtype: torch.dtype) -> Angles:
        """What the decoder turns queries and keys at positions [.., 1, N] by, as it does in a pass over hidden states of `dtype`.

        A copy of its rotary embedding is asked: some kinds go on from the longest prompt that they have seen.
        """
        rotary = copy(self.text.rotary_emb)  # no deep one: what moves it between devices may hold large weights
        rotary._buffers = dict(rotary._buffers)
        device = rotary.inv_freq.device
        like = torch.empty(0, dtype=dtype, device=device)
        cosines, sines = type(rotary).forward(rotary, like, positions.to(device))
        return Angles(cosines[0], sines[0])

    def following(self, prompt: Prompt, count: int) -> Angles:
        """The angles of the `count` positions after a prompt, in float32."""
        positions = torch.arange(prompt.next_position, prompt.next_position + count, device=self.device)
        return self.angles(self.step_positions(positions[None]), torch.float32)

    def step_positions(self, positions: Tensor) -> Tensor:
        """Position ids of generated tokens as the text model takes them, from positions [B, Q]."""
        return positions

    def decode_text(self, tokens: Sequence[int]) -> str:
        """Generated token ids to text, special tokens dropped."""
        return str(self.processor.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def beside(self, dynamic: bool) -> list[nn.Module]:
        """Modules beside the decoder's layers whose kernels pay to fuse: in a decoding step the rotary angles and the last norm;
        in a prefill (`dynamic`), where those are nothing, none."""
        return [] if dynamic else [self.text.rotary_emb, self.text.norm]

    @property
    def spread(self) -> bool:
        """Whether the layers stand on several devices."""
        return len(self.devices) > 1

    def weight_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.model.parameters())


def _placement(source: ModelSource, device: str, dtype: str, reading: str = "cpu") -> str:
    """The one device, or "auto" (accelerate spreads the layers) where the weights alone would fill it."""
    if not device.startswith("cuda") or torch.cuda.device_count() < 2 or source.source.startswith(RANDOM):
        return device
    _, total = torch.cuda.mem_get_info(device)
    return "auto" if needs(source, dtype, reading).weights > 0.85 * total else device


def _check_room(source: ModelSource, device: str, dtype: str, reading: str = "cpu") -> None:
    """Raises ValueError where the weights alone are larger than all GPUs: accelerate would move them to the host in silence."""
    if not device.startswith("cuda"):
        return
    cards = range(torch.cuda.device_count()) if not source.source.startswith(RANDOM) else [device]
    found, wanted = sum(torch.cuda.mem_get_info(card)[1] for card in cards), needs(source, dtype, reading).weights
    if wanted > found:
        raise ValueError(
            f"model {source.name!r}: its weights are {wanted / 1e9:.1f} GB in {dtype}, and {len(cards)} GPU(s) with"
            f" {found / 1e9:.1f} GB are here"
        )


def devices_of(model: nn.Module) -> tuple[torch.device, ...]:
    """Where a model's parts stand, that of its embeddings first. Milliseconds for a large model, so not for every sample."""
    home = model.get_input_embeddings().weight.device  # type: ignore[operator]
    return (*dict.fromkeys([home, *(parameter.device for parameter in model.parameters())]),)

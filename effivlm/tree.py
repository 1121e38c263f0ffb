"""One sample's tree of shared work: image, vision tower, prompt, prefill, compressed cache.

Methods meet the model here. A node is computed when the first method asks for it and kept for the others; the name of a node is
the tuple of the parts above it, so that methods share exactly what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from effivlm.caches import KeptLayer
from effivlm.decode import Start
from effivlm.meters import Within, kv_bytes, untimed
from effivlm.methods._base import (
    CachePart,
    ImagePart,
    ImageView,
    LayerPart,
    Method,
    Part,
    VisualPart,
)
from effivlm.methods._choose import doubting
from effivlm.methods._composed import Composed
from effivlm.models._adapter import Adapter, Prompt
from effivlm.prefill import Prefilled, prefilled
from effivlm.records import SEAMS, Sample

Path = tuple[Part | None, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A prompt as one method leaves it. `kept` of `of` is counted on tensors; `length` is the dense prompt's.

    `shares` are (kept, of) of every method of a composition, of a method alone its own.
    """

    cache: Sequence[KeptLayer]
    token: int
    position: int
    length: int
    visual_tokens: int
    kept: int
    of: int
    dense_bytes: int
    shares: tuple[tuple[int, int], ...] = ()
    measured: tuple[tuple[float, ...], int] = ((), 0)
    heads: tuple[tuple[int, ...], ...] = ()

    @property
    def start(self) -> Start:
        """Where decoding begins."""
        return Start(self.cache, self.token, self.position)

    def without_cache(self) -> Leaf:
        """What is counted on the tensors, without them: entries of each layer, and of its KV heads if any differ, and bytes."""
        heads: tuple[tuple[int, ...], ...] = ()
        if any(layer.lengths for layer in self.cache):
            heads = tuple(layer.lengths or (layer.keys.shape[1],) * len(layer.keys) for layer in self.cache)
        counts = tuple(layer.kept for layer in self.cache)
        return replace(self, cache=(), measured=(counts, kv_bytes(self.cache)), heads=heads)


class Tree:
    """Shared work on one sample for several methods; lives for that sample only.

    Its parts are done by `within`: "image" (the processor), "tower" (with the projector), "method", "prefill" (to the first
    token).
    """

    def __init__(self, model: Adapter, sample: Sample, methods: Sequence[Method], within: Within = untimed) -> None:
        self.within = within
        self.model = model
        self.sample = sample
        self.observers: dict[Path, list[CachePart]] = {}
        self.looked_at: set[Part | None] = set()
        for method in methods:
            *prefill, cache = self._path(method)
            if isinstance(prefill[1], VisualPart) and prefill[1].looks:
                self.looked_at.add(prefill[0])
            self.observers.setdefault(tuple(prefill), [])
            if isinstance(cache, CachePart):
                self.observers[tuple(prefill)].append(cache)
        self._nodes: dict[tuple[Any, ...], Any] = {}

    def with_inputs(self, method: Method, within: Within = untimed) -> Tree:
        """A tree that has done nothing but prepare the processor's output for `method`: where the clock starts."""
        fresh = Tree(self.model, self.sample, [method], within)
        for image in {None, self._path(method)[0]}:
            fresh._nodes["inputs", image] = self._inputs(image)
        return fresh

    def leaf(self, method: Method) -> Leaf:
        """The compressed prompt of one method, ready to decode."""
        path = self._path(method)
        *prefill, part = path
        done = self.prefilled(tuple(prefill))
        if isinstance(part, CachePart):
            with doubting():
                cache = self.within("method", lambda: part.compress(done.views, self.sample.id))
        else:
            cache = [KeptLayer(key[0], value[0]) for key, value in zip(done.cache.keys, done.cache.values, strict=True)]
        inputs = self._inputs(None)
        length, visual = inputs["input_ids"].shape[1], len(self.model.visual_positions(inputs))
        whole, entries = len(cache) * length, sum(layer.kept for layer in cache)
        each = method.methods if isinstance(method, Composed) else (method,)
        shares = [self._share(path, one, done, entries) for one in each]
        kept, of = (round(entries), whole) if isinstance(method, Composed) else shares[0]
        return Leaf(
            cache=cache,
            token=int(done.logits.argmax()),
            position=done.prompt.next_position,
            length=length,
            visual_tokens=visual,
            kept=kept,
            of=of,
            dense_bytes=round(sum(layer.nbytes for layer in cache) / entries * whole),
            shares=tuple(shares),
        )

    def _share(self, path: Path, method: Method, done: Prefilled, entries: float) -> tuple[int, int]:
        """What one method of `path` kept of what came to its seam: visual tokens, or `entries` of the cache in all layers."""
        if method.of == "prompt entries":
            return round(entries), sum(view.length for view in done.views)
        seam = next((part.seam for part in method.seam_parts()), "image")
        whole, shown = (len(self.model.visual_positions(self._inputs(image))) for image in (None, path[0]))
        prompt = int(done.prompt.visual.sum())
        if seam != "layer":
            return {"image": (shown, whole), "vision": (prompt, shown)}[seam]
        counts = [int(view.visual.sum()) for view in done.views]
        mean = isinstance(path[2], LayerPart) and path[2].layer_mean
        return round(sum(counts) / len(counts)) if mean else counts[-1], prompt

    def inputs_of(self, method: Method) -> dict[str, Any]:
        """The processor's output that a method's tower sees."""
        return self._inputs(self._path(method)[0])

    def lengths_of(self, method: Method) -> list[int]:
        """How many entries each layer sees in a method's prefill."""
        return [view.length for view in self.prefilled(self._path(method)[:3]).views]

    def places(self) -> tuple[Tensor, ...]:
        """Places [n_i, 3] of the visual tokens of each image, as `Visual` has them."""
        return tuple(self._encoded(None).places)

    def still_seen(self, method: Method, leaf: Leaf) -> list[Tensor] | None:
        """By layer, which of the dense prompt's visual tokens [V] the method left, in any head; merged ones by their anchor.

        None where that cannot be said: other images were shown, or the method does not note what it kept of a cache.
        """
        image, visual, layer, _ = self._path(method)
        if isinstance(image, ImagePart):
            return None
        done, whole = self.prefilled((image, visual, layer)), self.prompt((None, None)).visual
        if isinstance(visual, VisualPart):
            there, _ = self._chosen(image, visual)
        else:
            there = torch.arange(len(whole), device=whole.device)
        masks = []
        for stays, kept in zip(done.stays, leaf.cache, strict=True):
            left = there if stays is None else there[stays.to(there.device)]
            if kept.indices is not None:
                rows = zip(kept.indices, kept.lengths or [kept.indices.shape[1]] * len(kept.indices), strict=True)
                left = left[torch.cat([row[:length] for row, length in rows]).to(left.device)]
            elif kept.kept != len(left):
                return None
            mask = torch.zeros_like(whole)
            mask[left] = True
            masks.append(mask[whole])
        return masks

    def _path(self, method: Method) -> Path:
        """The method's parts at each seam; without a picture there is nothing to prune and the dense prefill serves all."""
        path = path_of(method)
        return path if self.sample.images or self.sample.video else (None, None, None, path[-1])

    def prefilled(self, path: Path) -> Prefilled:
        """Run the decoder over the prompt at `path` (image, vision, layer part), once."""
        return self._once(("prefill", path), lambda: self._prefill(path))  # type: ignore[no-any-return]

    def _once(self, name: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if name not in self._nodes:
            self._nodes[name] = make()
        return self._nodes[name]

    def _inputs(self, image: Part | None) -> dict[str, Any]:
        def prepare() -> dict[str, Any]:
            return self.within("image", lambda: self.model.prepare(self._shown(image)))

        return self._once(("inputs", image), prepare)  # type: ignore[no-any-return]

    def _shown(self, image: Part | None) -> Sample:
        """The sample as the processor gets it."""
        if not isinstance(image, ImagePart):
            return self.sample
        return self._holding(image.shrink([*self.sample.images, *self.sample.video], self._count))

    def _holding(self, images: Sequence[Image]) -> Sample:
        """The sample with other images and frames."""
        stills = len(self.sample.images)
        return replace(self.sample, images=tuple(images[:stills]), video=tuple(images[stills:]))

    def _count(self, images: Sequence[Image]) -> int:
        """Visual tokens that these images would make; depends on their sizes only."""
        sizes = tuple(image.size for image in images)
        return self._once(  # type: ignore[no-any-return]
            ("count", sizes), lambda: len(self.model.visual_positions(self.model.prepare(self._holding(images))))
        )

    def prompt(self, path: Path) -> Prompt:
        """The prompt after the image and vision seams."""
        image, visual = path
        if not isinstance(visual, VisualPart):
            return self._once(("prompt", image), lambda: self._whole_prompt(image))  # type: ignore[no-any-return]
        return self._once(("prompt", image, visual), lambda: self._pruned_prompt(image, visual))  # type: ignore[no-any-return]

    def _encoded(self, image: Part | None) -> Any:
        def encode() -> Any:
            inputs, looking = self._inputs(image), image in self.looked_at
            return self.within("tower", lambda: self.model.encode(inputs, looking))

        return self._once(("encoded", image), encode)

    def _whole_prompt(self, image: Part | None) -> Prompt:
        return self.model.prompt(self._inputs(image), self._encoded(image))

    def _pruned_prompt(self, image: Part | None, part: VisualPart) -> Prompt:
        return self.model.pruned(self.prompt((image, None)), *self._chosen(image, part))

    def _chosen(self, image: Part | None, part: VisualPart) -> tuple[Tensor, Tensor]:
        """Positions [K] of the whole prompt that stay, and the features of the visual ones among them."""

        def choose() -> tuple[Tensor, Tensor]:
            prompt, encoded = self.prompt((image, None)), self._encoded(image)
            stays, features = prompt.image < 0, []
            towers = encoded.towers or [None] * len(encoded.features)
            views = [ImageView(*seen) for seen in zip(encoded.features, encoded.places, towers, strict=True)]
            selections = self.within("method", lambda: part.select(views, self.sample.id))
            for number, (feature, selection) in enumerate(zip(encoded.features, selections, strict=True)):
                stays[(prompt.image == number).nonzero()[selection.kept, 0]] = True
                features.append(feature[selection.kept] if selection.features is None else selection.features)
            return stays.nonzero()[:, 0], torch.cat(features)

        return self._once(("chosen", image, part), choose)  # type: ignore[no-any-return]

    def _prefill(self, path: Path) -> Prefilled:
        image, visual, layer = path
        part = layer if isinstance(layer, LayerPart) else None
        prompt, observers = self.prompt((image, visual)), self.observers.get(path, [])
        return self.within(
            "prefill", lambda: prefilled(self.model, prompt, part, observers, self.sample.id, self.within)
        )


def path_of(method: Method) -> Path:
    """The part of a method at each seam, None where it does nothing.

    Raises:
        ValueError: two parts claim one seam.
    """
    path: list[Part | None] = [None] * len(SEAMS)
    for part in method.parts:
        place = SEAMS.index(part.seam)
        if path[place] is not None:
            raise ValueError(f"two parts work at the {part.seam} seam: {path[place]} and {part}")
        path[place] = part
    return tuple(path)

"""One sample's tree of shared work: image, vision tower, prompt, prefill, compressed cache.

Methods meet the model here. A node is computed when the first method asks for it and kept for the others; the name of a node is
the tuple of the parts above it, so that methods share exactly what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from effivlm.compression.base import (
    CachePart,
    ImagePart,
    ImageView,
    LayerPart,
    Method,
    Part,
    VisualPart,
)
from effivlm.compression.choose import NO_ORDER, Doubts, doubting, refuse
from effivlm.compression.composed import Composed
from effivlm.decoding.caches import KeptLayer
from effivlm.models._adapter import Adapter, Prompt, Visual
from effivlm.models._pictures import plain
from effivlm.records import Sample
from effivlm.run.chosen import disorder, refuse_disorder
from effivlm.run.finite import first_token, in_features, not_finite
from effivlm.run.hosted import Numbers, on_host
from effivlm.run.leaf import Leaf
from effivlm.run.paths import Path, of_prompts, path_of, ways
from effivlm.run.prefill import Prefilled, prefilled
from effivlm.run.spared import stages_spared
from effivlm.run.together import Beside
from effivlm.run.untouched import untouched
from effivlm.seams.meters import Within, untimed

T = TypeVar("T")
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Tree:
    """Shared work on one sample for several methods; lives for that sample only.

    Its parts are done by `within`: "image" (the processor), "tower" (with the projector), "method", "prefill" (the decoder),
    "first" (the first token from what that leaves).
    """

    def __init__(self, model: Adapter, sample: Sample, methods: Sequence[Method], within: Within = untimed) -> None:
        self.within = within
        self.model = model
        self.sample = sample
        self.observers: dict[Path, list[CachePart]] = {}
        self.looked_at: set[Part | None] = set()
        for method in methods:
            *prefill, cache = self._longest(method)
            for way in ways(tuple(prefill)):
                if isinstance(way[1], VisualPart) and way[1].looks:
                    self.looked_at.add(way[0])
                self.observers.setdefault(way, [])
                if isinstance(cache, CachePart):
                    self.observers[way].append(cache)
        self.beside = Beside(model, sample.id, lambda: self._unwatched(methods), within)
        self._nodes: dict[tuple[Any, ...], Any] = {}

    def with_inputs(self, method: Method, within: Within = untimed) -> Tree:
        """A tree that has done nothing but prepare the processor's output for `method`: where the clock starts."""
        fresh = Tree(self.model, self.sample, [method], within)
        for image in {None, self._path(method)[0]}:
            fresh._nodes["inputs", image] = self._inputs(image)
        return fresh

    def leaf(self, method: Method) -> Leaf:
        """The compressed prompt of one method, ready to decode.

        Raises:
            ValueError: its scores have no order.
        """
        leaf, doubts = self.unsure_leaf(method)
        leaf = self.begun(method, leaf)
        for error in filter(None, refuse(doubts)):
            raise error
        return leaf

    def unsure_leaf(self, method: Method) -> tuple[Leaf, Doubts]:
        """As `leaf`, before anything waits for the device: its first token is not read (`begun`), and its doubts are what
        `refuse` has to be asked of. So the device goes on with the prefill while Python asks for what comes after it."""
        path = self._path(method)
        *prefill, part = path
        length, visual = self._inputs(None)["input_ids"].shape[1], self._visual_tokens(None)
        self._entering(path)
        done = self.prefilled(tuple(prefill))
        doubts: Doubts = []
        if isinstance(part, CachePart):
            with doubting() as doubts, untouched(part, views=done.views):
                cache = self.within("method", lambda: part.compress(done.views, self.sample.id))
            doubts += disorder(cache)
        else:
            cache = [KeptLayer(key[0], value[0]) for key, value in zip(done.cache.keys, done.cache.values, strict=True)]
        whole, entries = len(cache) * length, sum(layer.kept for layer in cache)
        each = of_prompts(method)
        shares = [self._share(path, one, done, entries) for one in each]
        wanted = [self._wanted(one, done, share[1]) for one, share in zip(each, shares, strict=True)]
        kept, of = (round(entries), whole) if isinstance(method, Composed) else (*shares, (visual, visual))[0]
        leaf = Leaf(
            cache=cache,
            token=None,
            position=done.prompt.next_position,
            length=length,
            visual_tokens=visual,
            kept=kept,
            of=of,
            dense_bytes=round(sum(layer.nbytes for layer in cache) / (entries or 1) * whole),
            shares=tuple(shares),
            wanted=tuple(wanted) if any(wanted) else (),
            prompt=self.prompt_ids(path[0]),
            logits=done.logits,
        )
        return leaf, doubts

    def begun(self, method: Method, leaf: Leaf) -> Leaf:
        """A leaf of `unsure_leaf` with its first token, which costs one look at the device.

        Raises:
            NotFiniteError: features of the tower or logits hold NaN or infinity; says where it was seen first.
            Ill: nothing is left of the prompt.
        """
        path = self._path(method)[:3]
        first = partial(self.within, "first", lambda: self._first(path[0], self.prefilled(path)))
        return leaf.begun(self.once(("token", *path), first))

    def _first(self, image: Part | None, done: Prefilled) -> int:
        features = self._encoded(image).features
        token = first_token(self.model.rules, done.logits, self.prompt_ids(image), features)
        if token < 0:
            raise not_finite(features, done.prompt.embeds, done.cache)
        return token

    def cause(self, method: Method, error: BaseException) -> BaseException:
        """What broke a method's leaf: where its scores had no order, visual features that are not finite if there are any."""
        encoded = self._nodes.get(("encoded", self._path(method)[0]))
        return error if str(error) != NO_ORDER or encoded is None else in_features(encoded.features) or error

    def prompt_ids(self, image: Part | None) -> tuple[int, ...]:
        """Token ids of the whole prompt, if the rules of generation ask for them."""
        if not self.model.rules.change:
            return ()
        return self.once(("ids", image), lambda: tuple(self._inputs(image)["input_ids"][0].tolist()))

    def _share(self, path: Path, method: Method, done: Prefilled, entries: float) -> tuple[int, int]:
        """What one method of `path` kept of what came to its seam: visual tokens, or `entries` of the cache in all layers."""
        if method.of == "prompt entries":
            return round(entries), sum(view.length for view in done.views)
        seam = next((part.seam for part in method.seam_parts()), "image")
        whole, shown = self._visual_tokens(None), self._visual_tokens(path[0])
        prompt = self._entering(path)
        if seam != "layer":
            return {"image": (shown, whole), "vision": (prompt, shown)}[seam]
        counts = [view.length - done.prompt.length + prompt for view in done.views]  # no text leaves on the way
        mean = isinstance(path[2], LayerPart) and path[2].layer_mean
        return round(sum(counts) / len(counts)) if mean else counts[-1], prompt

    def _entering(self, path: Path) -> int:
        """Visual tokens that enter the decoder; asked before it runs, since to fetch the marks is to wait for what runs."""
        return self.prompt(path[:2]).visual_tokens

    def _wanted(self, method: Method, done: Prefilled, of: int) -> int:
        """What a method with a number of tokens should keep of `of`: its number, or all where a sample (a layer) has no more."""
        if method.keep.kind != "tokens":
            return 0
        lengths = [view.length for view in done.views] if method.of == "prompt entries" else [of]
        return sum(method.keep.of(length) for length in lengths)

    def inputs_of(self, method: Method) -> dict[str, Any]:
        """The processor's output that a method's tower sees."""
        return self._inputs(self._path(method)[0])

    @property
    def whole_inputs(self) -> dict[str, Any]:
        """The processor's output for the sample as it is."""
        return self._inputs(None)

    def lengths_of(self, method: Method) -> list[int]:
        """How many entries each layer sees in a method's prefill."""
        return [view.length for view in self.prefilled(self._path(method)[:3]).views]

    def places(self) -> tuple[Tensor, ...]:
        """Places [n_i, 3] of the visual tokens of each image, as `Visual` has them."""
        return tuple(self._encoded(None).places)

    def still_seen(self, method: Method, leaf: Leaf) -> Mask | None:
        """By layer, which of the dense prompt's visual tokens the method left [L, V], in any head; merged ones by their anchor.

        None where that cannot be said: other images were shown, or the method does not note what it kept of a cache.
        """
        image, visual, layer, _ = self._path(method)
        if isinstance(image, ImagePart):
            return None
        whole = self.prompt((None, None)).marks.numpy()
        there = self.once(("there", image, visual), lambda: self._there(image, visual))
        stays = self.once(("stays", image, visual, layer), lambda: self._left((image, visual, layer), there))
        chosen = on_host([kept.indices for kept in leaf.cache])
        masks = np.zeros((len(leaf.cache), len(whole)), dtype=bool)
        for mask, left, kept, rows in zip(masks, stays, leaf.cache, chosen, strict=True):
            if rows is not None:
                ends = kept.lengths or (rows.shape[1],) * len(rows)
                left = left[np.concatenate([row[:end] for row, end in zip(rows, ends, strict=True)])]
            elif kept.kept != len(left):
                return None
            mask[left] = True
        found: Mask = masks[:, whole]
        return found

    def _there(self, image: Part | None, visual: Part | None) -> Numbers:
        """Positions of the dense prompt that come to the decoder."""
        if isinstance(visual, VisualPart):
            kept: Numbers = self._chosen(image, visual)[0].cpu().numpy()
            return kept
        return np.arange(self.prompt((None, None)).length)

    def _left(self, path: Path, there: Numbers) -> list[Numbers]:
        """Those that each layer of the decoder sees."""
        return [there if stays is None else there[stays] for stays in on_host(self.prefilled(path).stays)]

    def _visual_tokens(self, image: Part | None) -> int:
        return self.once(("visual tokens", image), lambda: len(self.model.visual_positions(self._inputs(image))))

    def _path(self, method: Method) -> Path:
        """The method's parts at each seam, but those that would leave all there is, as a number of tokens does to a short prompt;
        without a picture there is nothing to prune and the dense prefill serves all."""
        return tuple(None if part is None or self._spares(part) else part for part in self._longest(method))

    def _longest(self, method: Method) -> Path:
        path = path_of(method)
        return path if self.sample.images or self.sample.video else (None, None, None, path[-1])

    def _spares(self, part: Part) -> bool:
        """Whether a number of tokens is at least what there is of them in the whole prompt."""
        if part.keep.kind != "tokens":
            return False
        entries = isinstance(part, CachePart)
        there = self._inputs(None)["input_ids"].shape[1] if entries else self._visual_tokens(None)
        return part.keep.exact(there) == there

    def prefilled(self, path: Path) -> Prefilled:
        """Run the decoder over the prompt at `path` (image, vision, layer part), once; where that pays, over others beside it."""
        done = self.beside.prefilled(path, self.prompt)
        self._nodes |= {("prefill", other): one for other, one in done.items()}
        return self.once(("prefill", path), lambda: self._prefill(path))

    def _unwatched(self, methods: Sequence[Method]) -> list[Path]:
        """Prefills beside dense's whose layers nobody looks at."""
        paths = dict.fromkeys(self._path(method)[:3] for method in methods)
        return [path for path in paths if any(path) and not self.observers[path]]

    def release(self, methods: Sequence[Method]) -> None:
        """Let go of the prefills that none of `methods` begins with; the dense one stays."""
        left = {(None, None, None), *(self._path(method)[:3] for method in methods)}
        for name in [name for name in self._nodes if name[0] == "prefill" and name[1] not in left]:
            del self._nodes[name]

    def once(self, name: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` computes, under a name that says all it depends on beside the sample."""
        if name not in self._nodes:
            self._nodes[name] = make()
        return cast(T, self._nodes[name])

    def _inputs(self, image: Part | None) -> dict[str, Any]:
        def prepare() -> dict[str, Any]:
            return self.within("image", lambda: self.model.prepare(self._shown(image)))

        return self.once(("inputs", image), prepare)

    def _shown(self, image: Part | None) -> Sample:
        """The sample as the processor gets it."""
        if not isinstance(image, ImagePart):
            return self.sample
        pictures = [
            plain(one).copy() for one in (*self.sample.images, *self.sample.video)
        ]  # a method may change its own
        return self._holding(image.shrink(pictures, self._count))

    def _holding(self, images: Sequence[Image]) -> Sample:
        """The sample with other images and frames."""
        stills = len(self.sample.images)
        return replace(self.sample, images=tuple(images[:stills]), video=tuple(images[stills:]))

    def _count(self, images: Sequence[Image]) -> int:
        """Visual tokens that these images would make; depends on their sizes only."""
        sizes = tuple(image.size for image in images)
        return self.once(
            ("count", sizes), lambda: len(self.model.visual_positions(self.model.prepare(self._holding(images))))
        )

    def prompt(self, path: Path) -> Prompt:
        """The prompt after the image and vision seams."""
        image, visual = path
        if not isinstance(visual, VisualPart):
            return self.once(("prompt", image), lambda: self._whole_prompt(image))
        return self.once(("prompt", image, visual), lambda: self._pruned_prompt(image, visual))

    def _encoded(self, image: Part | None) -> Visual:
        def encode() -> Visual:
            inputs, looking = self._inputs(image), image in self.looked_at
            return self.within("tower", lambda: self.model.encode(inputs, looking).to(self.model.device))

        return self.once(("encoded", image), encode)

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
            question = prompt.question if part.reads else None
            views = [ImageView(*seen, question) for seen in zip(encoded.features, encoded.places, towers, strict=True)]
            with untouched(part, views=views):
                selections = self.within("method", lambda: part.select(views, self.sample.id))
            for number, (feature, selection) in enumerate(zip(encoded.features, selections, strict=True)):
                refuse_disorder(part, selection.kept, len(feature))
                stays[(prompt.image == number).nonzero()[selection.kept, 0]] = True
                features.append(feature[selection.kept] if selection.features is None else selection.features)
            return stays.nonzero()[:, 0], torch.cat(features)

        return self.once(("chosen", image, part), choose)

    def _prefill(self, path: Path) -> Prefilled:
        image, visual, layer = path
        part = layer if isinstance(layer, LayerPart) else None
        prompt, observers = self.prompt((image, visual)), self.observers.get(path, [])
        noted = stages_spared(self.model, prompt, path, self.observers)
        whole: Prefilled | None = self._nodes.get(("prefill", (image, visual, None)))
        heads = whole.heads if whole and not observers else {}
        work = partial(prefilled, self.model, prompt, part, observers, self.sample.id, self.within, noted, heads)
        return self.within("prefill", work)

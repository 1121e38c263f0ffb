"""What greedy `generate` would do with a checkpoint's generation configuration, as rules; or why it cannot be done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from effivlm.decoding.generation import NO_RULES, History, Rules

IGNORED = frozenset(
    {  # sampling, which greedy search does not do
        *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        "renormalize_logits",
        # of beams and assistants that are not there
        *("early_stopping", "length_penalty", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
        *("assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind"),
        *("assistant_ensemble_weight", "max_matching_ngram_size", "speculation_type", "low_memory"),
        # lengths, which the task says; ids that generate adds to no prompt of ours; what a call returns; how it computes
        *("max_length", "max_new_tokens", "eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
        *("use_cache", "cache_config", "max_cache_len", "compile_config", "disable_compile", "prefill_chunk_size"),
        *("continuous_batching_config", "transformers_version"),
        "forced_bos_token_id",  # said after a prompt of one token only
    }
)
NEUTRAL: Mapping[str, Collection[Any]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "num_beam_groups": (1,),
    "guidance_scale": (1,),
    "encoder_repetition_penalty": (1,),
    "cache_implementation": ("static", "dynamic", "hybrid", "offloaded", "offloaded_static", "dynamic_full"),
}
ORDERED = ("no_repeat_ngram_size", "sequence_bias", "exponential_decay_length_penalty")
DONE = frozenset(
    {
        *ORDERED,
        *("repetition_penalty", "bad_words_ids", "min_length", "min_new_tokens"),
        *("suppress_tokens", "begin_suppress_tokens"),
    }
)
LENGTHS = ("min_length", "min_new_tokens", "exponential_decay_length_penalty")
"""What says something about end tokens alone."""
NOTHING: Mapping[str, Any] = {"repetition_penalty": 1.0}


def end_tokens(config: Any, tokenizer: Any, weights: str) -> frozenset[int]:
    """Tokens that end an answer: the generation configuration's, and the tokenizer's unless the weights are random."""
    stated = config.eos_token_id
    found = {stated} if isinstance(stated, int) else {*(stated or ())}
    if weights != "random" and isinstance(own := getattr(tokenizer, "eos_token_id", None), int):
        found.add(own)
    return frozenset(found)


def rules_of(config: Any, vocab: int, eos: Collection[int], whose: str) -> Rules:
    """Rules of a generation configuration for a vocabulary and the tokens that end an answer; `whose` begins an error.

    Raises:
        ValueError: it asks for what greedy search here does not do; names the entry.
    """
    from transformers import GenerationConfig

    asked: dict[str, Any] = {
        name: getattr(config, name, None) for name in GenerationConfig().to_dict() if not name.startswith("_")
    }
    asked = {name: value for name, value in asked.items() if value or isinstance(value, float)}
    for name, value in asked.items():
        if name not in IGNORED | DONE and value not in NEUTRAL.get(name, ()):
            raise ValueError(
                f"{whose}: the checkpoint's generation configuration asks for {name}={value!r}, which is not done here;"
                " --vlm-generation greedy leaves it out"
            )
    ends = tuple(sorted(eos))
    banned = [list(word) for word in asked.get("bad_words_ids", ()) if list(word) not in [[end] for end in ends]]
    history = None
    if any(name in asked for name in ORDERED) or any(len(word) > 1 for word in banned):
        history = _history(asked, ends)
    penalty = asked.get("repetition_penalty")
    least = asked.get("min_new_tokens")
    found = Rules(
        vocab=vocab,
        penalty=1.0 if penalty is None else float(penalty),
        never=tuple(sorted({*asked.get("suppress_tokens", ()), *(word[0] for word in banned if len(word) == 1)})),
        not_first=tuple(asked.get("begin_suppress_tokens", ())),
        ends=ends if least or asked.get("min_length") else (),
        least_new=least or 0,
        least_length=0 if least else asked.get("min_length") or 0,
        history=history,
    )
    return found if found.change or found.not_first else NO_RULES


def _history(asked: Mapping[str, Any], ends: tuple[int, ...]) -> History:
    """All rules as transformers' own processors, in the order of `generate`, made anew for a prompt's length."""

    def law(length: int) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda ids, logits: _processors(asked, ends, length, logits.device)(ids, logits)

    return law


def _processors(asked: Mapping[str, Any], ends: tuple[int, ...], length: int, device: torch.device) -> Any:
    import transformers as hf

    end = torch.tensor(ends, dtype=torch.long, device=device)
    more: dict[str, tuple[str, tuple[Any, ...]]] = {  # what each takes beside its entry
        "sequence_bias": ("SequenceBiasLogitsProcessor", ()),
        "repetition_penalty": ("RepetitionPenaltyLogitsProcessor", ()),
        "no_repeat_ngram_size": ("NoRepeatNGramLogitsProcessor", ()),
        "bad_words_ids": ("NoBadWordsLogitsProcessor", (end if ends else None,)),
        "min_length": ("MinLengthLogitsProcessor", (end, str(device))),
        "min_new_tokens": ("MinNewTokensLengthLogitsProcessor", (end, str(device))),
        "exponential_decay_length_penalty": ("ExponentialDecayLengthPenalty", (end, length)),
        "suppress_tokens": ("SuppressTokensLogitsProcessor", (str(device),)),
        "begin_suppress_tokens": ("SuppressTokensAtBeginLogitsProcessor", (length, str(device))),
    }
    made = hf.LogitsProcessorList()
    for name, (kind, given) in more.items():
        idle = name in LENGTHS and (not ends or (name == "min_length" and "min_new_tokens" in asked))
        if name in asked and asked[name] != NOTHING.get(name) and not idle:
            first = (length, asked[name]) if name == "min_new_tokens" else (asked[name],)
            made.append(getattr(hf, kind)(*first, *given))
    return made

"""The public door: its names stay, and a package that imports nothing else adds a method, a task and a model family."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from PIL import Image
from toy_session import ROOT

from effivlm import extending, registry

NAMES = """
Adapter Answer Benchmark Budget CachePart Choice Clip ImagePart ImageView Judged KeptLayer LayerPart LayerView LayeredCache Lazy
Method Part PerClip PerImage Prompt Reported Rolling Sample ScoredCache Selection Source Stage StagedPart Task Tower Unsupported
Video VideoChoice Visual VisualPart anls anls_pages apportion best best_of_each brought by_group by_part capturing circular
column_sums contains exact_match feeding generator grid letter line_f1 listed listed_options numbered relaxed_accuracy
row_attention taken together_all vqa_accuracy yes_no
"""

METHOD = """
from dataclasses import dataclass
from effivlm.extending import CachePart, best

@dataclass(frozen=True, kw_only=True)
class Newest(CachePart):
    '''The newest entries stay.'''

    presets = {"paper": {}, "older": {"gap": 3}}
    gap: int = 0

    def select(self, view, budget, sample_id):
        scores = view.keys.new_zeros(view.keys.shape[:2]) + self.gap
        scores[:, -budget:] += 1
        return best(scores, budget)
"""
QUIZZES = """
from effivlm.extending import Choice, Source, by_part, listed, numbered

class Quizzes(Choice):
    '''Four quizzes in two fields, which count alike.'''

    source = Source(
        homes=("somebody/quizzes",),
        split="test",
        rows=4,
        columns={"question": "text", "options": "[text]", "answer": "text", "field": "text", "image": "image"},
        licence="mine",
    )
    index = ("question", "field")
    metric = "accuracy_by_field"
    answer_type = "choice"
    max_new_tokens = 4
    average = "parts"

    def name(self, row, item):
        return numbered(row, row["question"])

    def stratum(self, row):
        return row["field"]

    def reported(self, part):
        return (part,)

    def options(self, row):
        return row["options"]

    def prompt(self, row, item):
        return f"{row['question']}\\n{listed(self.options(row))}"

    def references(self, row, item):
        return (row["answer"],)

    def score(self, text, sample):
        return float(self.read(text, sample) in sample.references)

    def overall(self, ids, scores):
        return by_part(self.known, ids, scores, self.stratum)
"""
HALF = "from effivlm.extending import CachePart\nclass Half(CachePart):\n    pass\n"
BROKEN = {
    "raising": f"{HALF}raise ZeroDivisionError('at import')",
    "leaving": f"{HALF}raise SystemExit(3)",
    "half_done": HALF,
    "foreign": "class Foreign:\n    seam = 'cache'",
    "unreadable": "class Unreadable(:",
    "without_class": "x = 1",
}
POINTS = {
    "methods": {"newest": "newest:Newest", **{name: f"plugged.{name}" for name in BROKEN}},
    "tasks": {"quizzes": "quizzes:Quizzes", "no_task": "newest:Newest"},
}
EXAMPLES = ROOT / "docs" / "examples"
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip leaves it behind: the examples of the documentation, and a package of somebody else's with faults."""
    folder = tmp_path_factory.mktemp("site")
    sources = shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("sources") / "examples")
    for project in sorted(path.parent for path in sources.glob("*/pyproject.toml")):
        subprocess.run([sys.executable, "-c", BUILD, str(sources)], cwd=project, capture_output=True, check=True)
    for wheel in sources.glob("*.whl"):
        shutil.unpack_archive(wheel, folder, "zip")
    package, facts = folder / "plugged", folder / "plugged-1.0.dist-info"
    package.mkdir()
    facts.mkdir()
    whole = {"__init__": "", "newest": METHOD, "quizzes": QUIZZES}
    for name, code in {**whole, **BROKEN}.items():
        (package / f"{name}.py").write_text(dedent(code).lstrip(), encoding="utf-8")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n", encoding="utf-8")
    lines = []
    for kind, points in POINTS.items():
        lines += [
            f"[effivlm.{kind}]",
            *(f"{name} = plugged.{at.removeprefix('plugged.')}" for name, at in points.items()),
        ]
    (facts / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def run(site: Path, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=cwd, check=False
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ViP-LLaVA, which no file of the package knows."""
    import torch
    import twins

    from effivlm.models._torchvision import ensure_torchvision

    ensure_torchvision()
    import transformers as hf
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("vip_llava_twin")
    torch.manual_seed(0)
    tokenizer = twins.tokenizer({"image_token": "<image>"})
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**vision, image_size=32, patch_size=8),
        text_config=hf.LlamaConfig(**twins.text(tokenizer, 4, 4, 2)),
        image_token_index=tokenizer.image_token_id,
        vision_feature_layers=[-2, -1],
    )
    model = hf.VipLlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    hf.LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=twins.template("<image>", "<video>"),
    ).save_pretrained(folder)
    return folder


def test_the_names_behind_the_door_stay() -> None:
    assert extending.__all__ == sorted(NAMES.split())
    for name in extending.__all__:
        assert getattr(extending, name).__module__.startswith("effivlm."), name


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    tree = ast.parse(Path(extending.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == extending._PLACE


def test_an_unknown_name_is_told_with_all_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no 'Selected'; it has: Adapter, .*Selection"):
        getattr(extending, "Selected")  # noqa: B009


def test_a_task_that_comes_through_the_door_needs_no_torch(site: Path) -> None:
    code = (
        "import sys, my_tasks.receipts; print(my_tasks.receipts.Receipts().samples(1, 0)[0].id, 'torch' in sys.modules)"
    )
    assert run(site, "-c", code).stdout.split() == ["receipts-0", "False"]


def test_a_class_that_was_imported_through_the_door_says_where_it_works(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(
        registry, "entries", lambda kind: {"newest": registry.Entry("newest", "plugged.newest", "Newest")}
    )
    registry.declared.cache_clear()
    registry.inherited.cache_clear()
    registry._outline.cache_clear()
    assert registry.inherited("methods", "newest", "seam") == "cache"
    monkeypatch.undo()
    registry.declared.cache_clear()
    registry.inherited.cache_clear()
    registry._outline.cache_clear()


def session(site: Path, checkpoint: Path, folder: Path, *words: str) -> tuple[str, int, dict[str, Any]]:
    """Output, exit code, and outcomes by method."""
    options = [f"--vlm-models=twin={checkpoint}", "--vlm-budgets=0.25", "--vlm-limit=2", f"--vlm-run={folder}", *words]
    done = run(site, "-m", "pytest", "bench_tests", "-q", "-p", "no:cacheprovider", "-k", "quality", *options)
    file = folder / "outcomes.jsonl"
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    found = {one["cell"]["method"]: one for one in records if one["kind"] == "outcome"}
    return done.stdout + done.stderr, done.returncode, found


def test_the_examples_add_a_method_a_task_and_a_family_and_a_broken_one_fails_alone(
    site: Path, checkpoint: Path, tmp_path: Path
) -> None:
    loadable = ["raising", "leaving", "half_done", "foreign"]
    working = ("dense", "newest", "fastv", "evenly")
    methods = ",".join([*working, "newest@older", "evenly@leftmost", *loadable])
    text, code, found = session(site, checkpoint, tmp_path / "run", f"--vlm-methods={methods}", "--vlm-tasks=receipts")
    assert code == 1, text
    assert {name: found[name]["status"] for name in working} == dict.fromkeys(working, "ok"), text
    for name in ("newest", "evenly"):
        assert abs(found[name]["achieved"]["keep"] - 0.25) < 0.02
    for name, words in zip(loadable, ("at import", "SystemExit: 3", "select", "subclass of Method"), strict=True):
        assert found[name]["status"] == "failed"
        assert name in found[name]["reason"]
        assert words in found[name]["reason"]


def test_a_package_adds_a_benchmark_with_a_published_set_as_the_shipped_ones_are_made(
    site: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFIVLM_DATA", str(tmp_path / "data"))
    folder = tmp_path / "mirror" / "quizzes"
    folder.mkdir(parents=True)
    Image.radial_gradient("L").resize((32, 32)).save(folder / "one.png")
    rows = [
        {
            "question": f"Which, {n}?",
            "options": ["x", "y"],
            "answer": "AB"[n % 2],
            "field": "fg"[n // 3],
            "image": "one.png",
        }
        for n in range(4)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = (f"--vlm-data={folder.parent}", "--vlm-methods=dense,snapkv", "--vlm-tasks=quizzes", "--vlm-scoring=compat")
    text, code, found = session(site, checkpoint, tmp_path / "run", *words, "--vlm-limit=4")
    assert code == 0, text
    dense = found["dense"]
    assert (dense["status"], dense["n"], dense["average"]) == ("ok", 4, "parts")
    assert {one["part"] for one in dense["answers"]} == set(dense["parts"]) == {"f", "g"}
    assert all(isinstance(one["invalid"], bool) for one in dense["answers"])
    assert dense["profile"] == "fixed", "it knows no other profile, and says so"
    assert "scored fixed: the task knows no other profile" in dense["remarks"]
    rows.pop()
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text, code, found = session(site, checkpoint, tmp_path / "other", *words)
    assert code == 1
    assert "has 3 rows and 4 are known" in text


def test_a_method_whose_file_cannot_be_read_is_refused_by_name_where_it_is_asked_for(
    site: Path, checkpoint: Path, tmp_path: Path
) -> None:
    for name, words in (("unreadable", "SyntaxError"), ("without_class", "found: none")):
        text, code, found = session(site, checkpoint, tmp_path / name, f"--vlm-methods={name}", "--vlm-tasks=receipts")
        assert code == 4
        assert name in text
        assert words in text
        assert not found


def test_list_names_what_cannot_be_used_and_all_the_rest(site: Path) -> None:
    done = run(site, "-m", "effivlm", "list")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert "The newest entries stay." in lines["newest"]
    assert "[presets: paper, older]" in lines["newest"]
    assert "SyntaxError" in lines["unreadable"]
    assert {"snapkv", "evenly", "receipts", "vip_llava"} <= set(lines)


def test_what_nobody_asked_for_is_left_out_and_said(site: Path) -> None:
    code = (
        "from effivlm.session.matrix import Asked, build; plan = build(Asked());"
        "print(sorted({cell.method for cell in plan.cells})); print(*plan.left_out, sep='\\n')"
    )
    methods, *left_out = run(site, "-c", code).stdout.splitlines()
    assert "newest" in methods
    assert "unreadable" not in methods
    assert [line.split("'")[1] for line in left_out] == ["unreadable", "without_class"]

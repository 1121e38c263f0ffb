"""A page for each task: its docstring, how it is asked and scored, and where its samples come from."""

from __future__ import annotations

from typing import Any

from documented import Page, command, place, said, table

from effivlm import registry
from effivlm.suites import suites

KIND = "tasks"
INSIDE, PUBLISHED, JUDGED = "Inside the package", "Published sets", "Marked by a judge"


def pages() -> list[Page]:
    """The index first, then the tasks that need nothing, those of published sets, and those that a judge marks."""
    found = [_page(name) for name in registry.names(KIND)]
    order = [INSIDE, PUBLISHED, JUDGED]
    found.sort(key=lambda page: (order.index(page.section), page.title))
    return [_index(found), *found]


def _page(name: str) -> Page:
    task = registry.load(KIND, name)
    source = getattr(task, "source", None)
    parts = [
        f"# {name}",
        *said(KIND, name),
        "## Run it",
        command(*_commands(name, task)),
        "## Scoring",
        table(["", ""], _scoring(name, task)),
    ]
    if source is not None:
        parts += ["## Where samples come from", table(["", ""], _published(source))]
    return Page(f"{KIND}/{name}.md", name, _section(name, task), "\n\n".join(parts) + "\n")


def _section(name: str, task: Any) -> str:
    if getattr(task, "source", None) is None:
        return INSIDE
    return JUDGED if task.rubric else PUBLISHED


def _commands(name: str, task: Any) -> list[str]:
    case = f'pytest bench_tests -k "quality and snapkv" --vlm-tasks {name}'
    if getattr(task, "source", None) is None:
        return [case]
    fetch = f"python -m effivlm fetch {name} --size"
    return [fetch, f"{case} --vlm-judge openai:MODEL" if task.rubric else case]


def _scoring(name: str, task: Any) -> list[tuple[str, str]]:
    within = [f"`{suite}`" for suite, names in suites(KIND).items() if name in names]
    facts = [
        ("metric", f"`{task.metric}`"),
        ("scored by", task.scoring),
        ("an answer is", task.answer_type.replace("_", "/")),
        ("longest answer", f"{task.max_new_tokens} tokens"),
        ("published scale", f"0 to {task.scale:g}"),
        ("profiles", ", ".join(f"`{profile}`" for profile in task.profiles)),
        ("the score is a mean over", task.average),
    ]
    if task.group > 1 and getattr(task, "jointly", True):
        facts.append(("answers count", "only with the others of their group"))
    if chance := getattr(task, "chance", 0.0):
        facts.append(("guessing scores", f"{chance:g}"))
    if dense := getattr(task, "dense", None):
        facts.append(("printed for dense", ", ".join(f"{family} {score:g}" for family, score in dense.items())))
        facts.append(("comparable with that", task.comparable))
    facts.append(("in the suites", ", ".join(within) or "none"))
    facts.append(("file", f"`{place(KIND, name)}`"))
    return facts


def _published(source: Any) -> list[tuple[str, str]]:
    return [
        ("repositories, the first that is there", ", ".join(f"`{home}`" for home in source.homes)),
        ("split", f"`{source.split}`"),
        ("rows", f"{source.rows:,}"),
        ("columns", ", ".join(f"`{column}` ({form})" for column, form in source.columns.items())),
        ("licence", source.licence),
    ]


def _index(found: list[Page]) -> Page:
    parts = ["# Tasks", f"{len(found)} tasks. Scores of those that end in `_micro` stand for no large benchmark."]
    for section in dict.fromkeys(page.section for page in found):
        names = [page.title for page in found if page.section == section]
        parts += [
            f"## {section}",
            table(["task", "asks"], [(f"[`{name}`]({name}.md)", said(KIND, name)[0]) for name in names]),
        ]
    return Page(f"{KIND}/index.md", "Tasks", "", "\n\n".join(parts) + "\n")

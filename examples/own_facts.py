"""Facts of one's own: templates × triples, written to and read from a JSON-lines file."""

import tempfile
from pathlib import Path

import kn_attrib as kn

facts = kn.facts_from_templates(
    "capital",
    triples=[("France", "Paris"), ("Italy", "Rome"), ("Bolivia", "Sucre", "La Paz")],
    prompts=["The capital of [X] is [Y].", "The capital city of [X] is [Y]."],
    held_out=["[X] has the capital [Y]."],
)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "facts.jsonl"
    facts.save(path)
    assert kn.load_facts(path) == facts
    print(path.read_text(encoding="utf-8").splitlines()[0])

print(facts, [fact.id for fact in facts if fact.is_ambiguous])

"""Compare three methods on a few facts; save rows and report to a temporary folder; read the table."""

import tempfile
from pathlib import Path

import kn_attrib as kn

model = kn.load_model("zoo:bert-facts")
comparison = kn.compare(
    model,
    "world",
    ["integrated_gradients", "activation", "random"],
    limit=17,
    budgets=(1, 10),
)
print(comparison.table().to_string())
print(comparison.verdict())

with tempfile.TemporaryDirectory() as folder:
    saved = comparison.save(Path(folder) / "run")
    report = comparison.report(saved / "report.html")
    print(f"report: {report.stat().st_size / 1e3:.0f} kB")
    again = kn.Comparison.load(saved)
    assert again.rows.equals(comparison.rows)

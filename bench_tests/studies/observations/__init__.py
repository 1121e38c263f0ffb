"""The paper's observations and insights, tested: `python -m bench_tests.studies.observations` from the repository's root."""

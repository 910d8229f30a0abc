"""Benchmark: config, plan, runner, store, report."""

"""Load a running server and tell what it bears.

bench           levels of concurrency, each beside the bare engine and the original
  perf_analyzer   NVIDIA's load generator: where it is, what it sends, what it reports
  bare_engine     the server's engine in a loop without it
  step_times      what the server's own statistics say of each step
  bench_figures   what was measured, and the ratios
  report          bench.json, bench.md, bench.png
soak            twice the load that the server can answer, for minutes
  mixed_load      requests of many kinds at a fixed rate, and what becomes of each
  soak_verdict    whether the server held it
own_pictures    a data set of a folder of pictures, for both
"""

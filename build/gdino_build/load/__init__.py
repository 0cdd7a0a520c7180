"""Load a running server and tell what it bears.

perf_analyzer   NVIDIA's load generator: where it is, what it sends, what it reports
step_times      what the server's own statistics say of each step
contenders      the bare engine and the original, one picture after the other
bench           levels of concurrency, interleaved with both
soak            a mixed load above what the server can do, for minutes
soak_verdict    whether the server held it
report          bench.json, bench.md, bench.png
"""

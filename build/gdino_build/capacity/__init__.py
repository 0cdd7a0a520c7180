"""From what `make bench` measured of one server to how many of them a load takes.

levels     bench.json, read and checked
knee       the level after which more requests in flight bring delay and little else, and why
demand     a load, as people tell it, and the replicas that it takes
report     capacity.json, capacity.md, capacity.png
"""

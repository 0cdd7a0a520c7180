"""How much memory a server takes, and whether it fits.

worker    runs the detector in a process of its own, batch after batch, and tells its peaks
cost      a line through the peaks of each bucket: base and memory for each picture of a batch
plan      the largest batch that fits a machine, and the refusal of a profile that does not
"""

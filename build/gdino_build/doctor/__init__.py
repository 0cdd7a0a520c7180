"""`make doctor`: what of this machine cannot work together, why, and what mends it.

facts          what is known of a machine, and nothing else
parsing        what tools print -> facts
collect        runs the tools, reads the files
compatibility  which versions work together: compatibility.toml, with its sources
diagnosis      facts and compatibility -> findings
report         findings as text
command        all of it, one after the other

Needs Python and nothing else, for a machine on which nothing works yet.
"""

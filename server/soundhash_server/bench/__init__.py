"""``soundhash bench``: what the engine does on this machine, with these recordings, as they grow.

recordings -> fingerprints and clips -> a throw-away index of each size -> figures, a chart
"""

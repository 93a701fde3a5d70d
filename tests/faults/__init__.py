"""What goes wrong between a server and those who use it: cuts at every byte, silence, slowness, partitions, killed servers."""

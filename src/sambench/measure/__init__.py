"""What a variant costs: parameters, operations, time, memory, and the record of the machine that measured them."""

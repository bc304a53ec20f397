"""How sure a parser is: probabilities of its arcs and trees, and the trees it could have chosen instead."""

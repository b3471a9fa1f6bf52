"""What stands behind `edge_spine.scan`: one file per kind of input, and the checks that they share."""

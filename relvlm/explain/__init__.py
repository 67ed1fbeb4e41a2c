"""Where a model looks: heat of each word, boxes, relations of one photo; a page of them; how well the heat points."""

"""RelWorld: a generated world of drawn objects and relations, as web corpus, detections and scene graphs."""

"""How a model is judged: benchmarks in their official files and protocols, scores, metrics, reports."""

"""Token vectors for shortlists, distilled from a sentence encoder: what `worker/bundled/model/token_vectors.npz` is.

`python -m worker.bench.distil_vectors --encoder FOLDER --out FILE` runs the encoder once over each token of its
vocabulary by itself, keeps the strongest dimensions (PCA), and lets rare words weigh more. Needs the extra `export`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worker.engines.token_vectors import token_list, token_weights, write_token_vectors
from worker.types import Float32Array

BATCH_TOKENS = 1024


def encoded(encoder: Path) -> Float32Array:
    """float32 [tokens, width]: what the encoder's last layer makes of each token between its special tokens."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415  # as above

    tokenizer: Any = AutoTokenizer.from_pretrained(encoder)
    model: Any = AutoModel.from_pretrained(encoder).eval()
    rows = []
    with torch.inference_mode():
        for ids in torch.arange(tokenizer.vocab_size).split(BATCH_TOKENS):
            start, end = (torch.full_like(ids, token) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id))
            batch = torch.stack([start, ids, end], dim=1)
            rows.append(model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state[:, 1])
    return np.asarray(torch.cat(rows).float().numpy())


def strongest(vectors: Float32Array, dimensions: int) -> Float32Array:
    """The `dimensions` directions in which `vectors`, float32 [tokens, width], differ most; centred."""
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ directions[:, ::-1][:, :dimensions], np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Distil, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m worker.bench.distil_vectors", description=__doc__)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of a sentence encoder, safetensors")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--dimensions", type=int, default=128)
    asked = parser.parse_args(arguments)
    tokenizer_file = asked.encoder / "tokenizer.json"
    weights = token_weights(token_list(tokenizer_file))
    vectors = strongest(encoded(asked.encoder), asked.dimensions) * weights[:, np.newaxis]
    write_token_vectors(asked.out, tokenizer_file, vectors)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""GLiClass' own pipeline with random weights: all labels in one pass, so what a text costs as labels are added."""

import time

import protocol
import torch
from gliclass import GLiClassModel, GLiClassModelConfig, ZeroShotClassificationPipeline
from transformers import AutoTokenizer, BertConfig


def main() -> None:
    """Time every run that the bench asks for; no Kafka is in between."""
    given = protocol.settings()
    torch.set_num_threads(given["threads"])
    classify = _pipeline(given["model"], given.get("save"))
    protocol.ready("gliclass", "torch", "transformers")
    for run in protocol.runs():
        with torch.inference_mode():
            classify(run["texts"][:1], run["labels"], threshold=0.5)
            began = time.perf_counter()
            classify(run["texts"], run["labels"], threshold=0.5)
        protocol.say(event="done", seconds=time.perf_counter() - began)


def _pipeline(folder: str, target: str | None) -> ZeroShotClassificationPipeline:
    """An encoder of the same shape as the worker's model, under GLiClass' head; it is saved where `target` is given."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<<LABEL>>", "<<SEP>>"]})
    encoder = BertConfig.from_pretrained(folder)
    encoder.vocab_size = len(tokenizer)
    config = GLiClassModelConfig(
        encoder_config=encoder,
        encoder_model=folder,
        class_token_index=tokenizer.convert_tokens_to_ids("<<LABEL>>"),
        text_token_index=tokenizer.convert_tokens_to_ids("<<SEP>>"),
        architecture_type="uni-encoder",
        vocab_size=len(tokenizer),
        prompt_first=True,
    )
    model = GLiClassModel(config).eval()
    if target is not None:
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    return ZeroShotClassificationPipeline(
        model, tokenizer, classification_type="multi-label", device="cpu", progress_bar=False
    )


if __name__ == "__main__":
    main()

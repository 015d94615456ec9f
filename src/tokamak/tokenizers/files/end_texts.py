"""Texts of tokens that end a turn in some model family; files name only one of them as eos."""

END_TEXTS = frozenset(
    (
        *(
            "<|eot_id|>",
            "<|eom_id|>",
            "<|im_end|>",
            "<|end|>",
            "<|return|>",
            "<|call|>",
            "<end_of_turn>",
            "<turn|>",
        ),
        *(
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "<|END_OF_TURN_TOKEN|>",
            "<|end_of_turn|>",
            "<|endofturn|>",
        ),
        *("<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "</s>", "<eos>", "[EOS]", "[EOT]"),
        *("_<EOT>", "<|endofmessage|>"),
    )
)

"""Forms of a conversation by the names llama-cpp-python and llama.cpp have for them, as Jinja templates.

The forms are those the models were taught; for llama-2 and zephyr that library writes other white space. A beginning-of-text
token is added where they are encoded.
"""

from __future__ import annotations

_TURNS = "{% for m in messages %}{{ START + m.role + MIDDLE + m.content + END }}{% endfor %}"


def _turns(start: str, middle: str, end: str, ask: str) -> str:
    """A template whose turns all look alike. ask: what comes before an answer."""
    marks = {"START": start, "MIDDLE": middle, "END": end}
    text = _TURNS
    for name, mark in marks.items():
        text = text.replace(name, repr(mark))
    return text + "{% if add_generation_prompt %}" + ask + "{% endif %}"


FORMATS = {
    "chatml": _turns("<|im_start|>", "\n", "<|im_end|>\n", "<|im_start|>assistant\n"),
    "zephyr": _turns("<|", "|>\n", "</s>\n", "<|assistant|>\n"),
    "llama-3": _turns(
        "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama-2": (
        "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}"
        "{% elif m.role == 'user' %}{{ '<s>[INST] ' }}{% if ns.system %}{{ '<<SYS>>\n' + ns.system + '\n<</SYS>>\n\n' }}"
        "{% set ns.system = '' %}{% endif %}{{ m.content + ' [/INST]' }}"
        "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
    ),
    "mistral-instruct": (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content }}"
        "{% elif m.role == 'assistant' %}{{ ' [/INST]' + m.content + '</s>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ ' [/INST]' }}{% endif %}"
    ),
    "gemma": (
        "{% for m in messages %}{% if m.role != 'system' %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) "
        "+ '\n' + m.content + '<end_of_turn>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "command-r": (
        "{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|><|' + ('CHATBOT' if m.role == 'assistant' else m.role | upper) "
        "+ '_TOKEN|>' + m.content | trim + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
    ),
}  # fmt: skip
FORMATS |= {"llama2": FORMATS["llama-2"], "llama3": FORMATS["llama-3"]}

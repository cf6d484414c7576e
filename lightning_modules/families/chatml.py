r"""ChatML, `<|im_start|>role\n…<|im_end|>\n`, as a template for models that come without one."""

from __future__ import annotations

START, END = "<|im_start|>", "<|im_end|>"


def chatml(picture: str) -> str:
    """The Jinja template of chats in ChatML.

    Args:
        picture: what stands for a picture.
    """
    part = f"{{{{ part.text if part.type == 'text' else '{picture}' }}}}"
    turn = f"{START}{{{{ message.role }}}}\n{{% for part in message.content %}}{part}{{% endfor %}}{END}\n"
    begun = f"{{% if add_generation_prompt %}}{START}assistant\n{{% endif %}}"
    return f"{{% for message in messages %}}{turn}{{% endfor %}}{begun}"

"""The limits for data from applications: sizes in bytes, and numbers."""

MESSAGE_BYTES = 1_000_000
"""The largest value of an event. A larger one is refused over HTTP; on Kafka it becomes a dead letter."""

CUT_BYTES = 64 * 1024
"""How much of a refused value a dead letter keeps."""

EXACT = 2**53
"""From here on a double does not hold every whole number; a number such as 300.0 that is smaller is a whole one."""

KEY_BYTES = 1024
"""The longest entity, subject or id, in bytes of UTF-8; and how much of its key a dead letter keeps."""

TEXT_CHARACTERS = 256
"""How much of a text is kept as a feature or as a class: its first characters, at most KEY_BYTES bytes of UTF-8. The rest is cut off."""

WORDS_BYTES = 32 * 1024
"""The longest free text that a model takes whole, in bytes of UTF-8."""

TENSOR_ELEMENTS = 65_536
"""The most numbers that a tensor may have, such as an image of 256 x 256. In a record they take 350 kB."""

MOST_CLASSES = 100
"""The most classes that a model may have. Each prediction is logged with the probability of each."""

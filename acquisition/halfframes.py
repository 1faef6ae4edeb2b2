"""Frames of a recording that were cut off between their rows, found and removed.

The SDK's recorder writes a frame as three rows, each by itself: the image, its metadata, its camera info, all with the
same time. A kill, or a disk that is full for one and not for the next, leaves a frame of which a part is missing.
"""

import sqlite3

HALF_FRAMES = """
WITH part AS (
    SELECT m.id, m.timestamp, substr(t.name, 1, instr(t.name, '/image/')) AS stream,
           t.name LIKE '%/image/data%' AS is_image, t.name LIKE '%/image/metadata' AS is_metadata
    FROM messages m JOIN topics t ON m.topic_id = t.id WHERE t.name LIKE '%/image/%'
),
half AS (
    SELECT stream, timestamp FROM part GROUP BY stream, timestamp
    HAVING sum(is_image) = 0 OR sum(is_metadata) < sum(is_image)
)
SELECT id FROM part JOIN half USING (stream, timestamp)
"""


def drop_half_frames(database: sqlite3.Connection) -> int:
    """Remove every row that belongs to a frame without its image or without its metadata; returns how many rows.

    Raises:
        sqlite3.Error: the database is damaged, or cannot be written to.
    """
    with database:
        return database.execute(f"DELETE FROM messages WHERE id IN ({HALF_FRAMES})").rowcount  # noqa: S608 - a constant

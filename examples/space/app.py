"""A Space for the Hugging Face hub: rank labels for a video, and say when they fit.

pip install gradio && python examples/space/app.py    # a Space runs app.py, with requirements.txt beside it
"""

from __future__ import annotations

import gradio as gr

import mote_fast

clf = mote_fast.load("tiny").fold()
# Videos of strangers are decoded in a process of their own.
clf.decode_time_limit = 60.0


def rank(video: str, labels: str) -> dict[str, float]:
    """Return the probability of each label."""
    return {each.label: each.score for each in clf.classify(video, labels.splitlines(), topk=10)}


def find(video: str, labels: str) -> list[list[object]]:
    """Return the start, the end, the label and the score of each segment."""
    found = clf.timeline(video, labels.splitlines(), background="auto")
    return [[each.start, each.end, each.label, each.score] for each in found.segments]


with gr.Blocks(title="mote_fast", analytics_enabled=False) as app:
    video = gr.Video(label="Video")
    labels = gr.Textbox(label="Labels, one a line", lines=6)
    with gr.Row():
        gr.Button("Rank the labels").click(rank, [video, labels], gr.Label(label="Labels"))
        gr.Button("Find when").click(find, [video, labels], gr.Dataframe(headers=["start", "end", "label", "score"]))

if __name__ == "__main__":
    app.launch()

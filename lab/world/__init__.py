"""A generated open-vocabulary video world: drawn objects that perform actions, named in words; see lab/README.md.

words.py    objects, actions and their names
scenes.py   the content of each frame of a video, drawn from named integers
draw.py     frames from scenes, all at once
splits.py   the class lists: close-set, unseen combinations, unseen actions, another domain
stills.py   pictures with captions, to train a CLIP on
write.py    splits as h264 files with lists
"""

"""The embedded default: data with known answers, and small transformers trained on them.

Digit scenes    digit_scenes, Scenes; demo_vit, demo_swin
Captions        demo_clip, demo_clip_tokenizer
Reviews         generated_reviews, Reviews; demo_bert, demo_bert_tokenizer
Sounds          tone_clips, Clips; demo_ast, demo_ast_extractor
Facts           stated_facts, Facts; demo_lm, demo_lm_tokenizer, NextWord
Parts           part_scenes, PartScenes; demo_parts
Scene questions digit_questions, DigitQuestions; demo_vlm, demo_vlm_processor, DigitAnswers

Nothing is downloaded: the digits come with scikit-learn, the weights with this package. Each folder here
holds one kind of data, its model, the script that trained it and the weights with their card.
"""

from captum_vit.demo.captions import demo_clip, demo_clip_tokenizer
from captum_vit.demo.digits import Scenes, demo_swin, demo_vit, digit_scenes
from captum_vit.demo.facts import Facts, NextWord, demo_lm, demo_lm_tokenizer, stated_facts
from captum_vit.demo.parts import PartScenes, demo_parts, part_scenes
from captum_vit.demo.reviews import Reviews, demo_bert, demo_bert_tokenizer, generated_reviews
from captum_vit.demo.scene_questions import DigitAnswers, DigitQuestions, demo_vlm, demo_vlm_processor, digit_questions
from captum_vit.demo.sounds import Clips, demo_ast, demo_ast_extractor, tone_clips

__all__ = [
    "Clips",
    "DigitAnswers",
    "DigitQuestions",
    "Facts",
    "NextWord",
    "PartScenes",
    "Reviews",
    "Scenes",
    "demo_ast",
    "demo_ast_extractor",
    "demo_bert",
    "demo_bert_tokenizer",
    "demo_clip",
    "demo_clip_tokenizer",
    "demo_lm",
    "demo_lm_tokenizer",
    "demo_parts",
    "demo_swin",
    "demo_vit",
    "demo_vlm",
    "demo_vlm_processor",
    "digit_questions",
    "digit_scenes",
    "generated_reviews",
    "part_scenes",
    "stated_facts",
    "tone_clips",
]

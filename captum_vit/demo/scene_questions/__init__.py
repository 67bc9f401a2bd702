"""Questions about digit scenes, and a small LLaVA trained to answer."""

from captum_vit.demo.scene_questions.answers import DigitAnswers
from captum_vit.demo.scene_questions.model import demo_vlm, demo_vlm_processor
from captum_vit.demo.scene_questions.questions import SIDES, DigitQuestions, digit_questions

__all__ = ["SIDES", "DigitAnswers", "DigitQuestions", "demo_vlm", "demo_vlm_processor", "digit_questions"]

"""What was found in a model, and which methods work on it."""

from captum_vit.doctor.examination import doctor
from captum_vit.doctor.report import DEFECT, Identity, Report

__all__ = ["DEFECT", "Identity", "Report", "doctor"]

"""What other tools can show of a run, by what each is capable of: one file a dashboard."""

from gradguard.integrations.base import AbstractDashboard as AbstractDashboard
from gradguard.integrations.loggers import dashboard_of as dashboard_of

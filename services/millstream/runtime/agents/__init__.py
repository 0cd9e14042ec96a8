"""Stages that a team declares as Faust agents: the app, its topics and tables, and the stage that runs an agent."""

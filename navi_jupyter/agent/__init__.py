"""What answers a prompt: loops behind the ``AgentLoop`` port, their tools and their profiles.

Not responsible for the log, the sessions or the recalls: it yields event bodies and calls ports.
"""

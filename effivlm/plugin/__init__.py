"""What knows pytest: options, controller, scheduler, summary, gate, hook specifications."""

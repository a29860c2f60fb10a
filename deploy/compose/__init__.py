"""What operators of deploy/docker-compose.yml do beside `up`: back up, restore, restart and upgrade."""

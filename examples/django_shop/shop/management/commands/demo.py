"""`manage.py demo`: tables, a few products, an administrator, and the server."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management import BaseCommand, call_command

from shop.models import Customer, Product

PRODUCTS = [
    ("Assam", "tea", "4.50"),
    ("Sencha", "tea", "6.20"),
    ("Sidamo", "coffee", "9.90"),
    ("Yirgacheffe", "coffee", "11.40"),
]


class Command(BaseCommand):
    help = "Prepare the database and serve the shop."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        if not Product.objects.exists():
            for name, category, price in PRODUCTS:
                Product.objects.create(name=name, category=category, price=price)
            Customer.objects.create(name="Alice", avatar="/avatars/alice.png")
        if not User.objects.filter(username="admin").exists():
            User.objects.create_superuser("admin", password="admin")
        where = f"http://127.0.0.1:{port}"
        self.stdout.write(f"The shop is at {where}/, its admin at {where}/admin/ (admin, admin). Ctrl-C ends it.")
        self.stdout.write("Every answer has a header X-Queries: reload a page, and see it fall to 0.")
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)

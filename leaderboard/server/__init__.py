"""The board as a web server: the page, a JSON API, and the way in for submissions. `app.make_app` builds it."""

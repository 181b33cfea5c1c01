"""The service over HTTP: OpenAI's images API, A1111's, and what operators need. FastAPI on uvicorn."""

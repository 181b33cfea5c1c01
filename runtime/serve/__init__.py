"""Many requests on one host: pictures of all of them step together, and join and leave between any two steps.

http/        what people's programs speak: OpenAI's images API, A1111's, and what operators need
service.py   takes requests, watches them, hands them to devices; loads another bundle in between
worker.py    one device: its loops, and what runs before and after them
scheduler.py which pictures make the next step; knows neither engines nor clocks
"""

"""What redis-py, any version from 5 on, should find in a running daemon. Run by clients.rs."""

import sys

import redis

port = int(sys.argv[1])

for protocol in (2, 3):
    client = redis.Redis(port=port, protocol=protocol)
    client.flushall()
    assert client.ping()
    assert client.set("key", b"\x00\xffbinary\r\n")
    assert client.get("key") == b"\x00\xffbinary\r\n"
    assert client.get("missing") is None

    assert client.mset({f"k{i}": f"v{i}" for i in range(100)})
    assert client.mget([f"k{i}" for i in range(100)]) == [f"v{i}".encode() for i in range(100)]
    assert client.delete(*[f"k{i}" for i in range(50)]) == 50
    assert sorted(client.scan_iter("k*", count=7)) == sorted(
        [f"k{i}".encode() for i in range(50, 100)] + [b"key"]
    )

    assert client.set("n", 41, ex=100) and client.incr("n") == 42
    assert 0 < client.ttl("n") <= 100
    assert client.incrbyfloat("f", 1.5) == 1.5
    assert client.set("key", "other", nx=True) is None
    assert client.getex("n", persist=True) == b"42" and client.ttl("n") == -1
    assert client.append("text", "ab") == 2 and client.getrange("text", 0, 0) == b"a"
    assert client.type("text") == b"string"

    pipeline = client.pipeline(transaction=False)
    for i in range(1000):
        pipeline.set(f"p{i}", i).get(f"p{i}")
    replies = pipeline.execute()
    assert replies[1::2] == [str(i).encode() for i in range(1000)]

    large = b"x" * 5_000_000
    assert client.set("large", large) and client.get("large") == large

    try:
        client.execute_command("NOSUCHCOMMAND", "a")
        raise SystemExit("an unknown command succeeded")
    except redis.ResponseError as error:
        assert "unknown command" in str(error), error
    client.client_setname("tester")
    assert client.client_getname() in ("tester", b"tester")
    assert client.info("server")["redis_version"]
    assert client.dbsize() > 1000
    other = redis.Redis(port=port, protocol=protocol, db=3, decode_responses=True)
    assert other.set("there", "é") and other.get("there") == "é" and other.dbsize() == 1
    assert client.get("there") is None

print("fine with redis-py", redis.__version__)

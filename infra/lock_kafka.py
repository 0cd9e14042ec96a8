"""Write adapters/embedded/kafka_jars.lock: Apache Kafka's server and a log4j binding, every jar by its hash.

Run by hand to move to another Kafka: ``.venv/bin/python infra/lock_kafka.py 4.1.2``.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jgo.maven import MavenContext

LOCK = Path(__file__).parent.parent / "services/millstream/adapters/embedded/kafka_jars.lock"


def main(version: str) -> None:
    """Resolve, fetch and hash."""
    with tempfile.TemporaryDirectory() as scratch:
        maven = MavenContext(repo_cache=Path(scratch), timeout=60)
        direct, transitive = maven.resolver.resolve([maven.create_dependency(f"org.apache.kafka:kafka_2.13:{version}")])
        artifacts = [d.artifact for d in (*direct, *transitive) if d.scope in (None, "compile", "runtime")]
        # Resolved apart: log4j's own bill of materials would pull Kafka's clients down to an older release.
        log4j = next(a.version for a in artifacts if a.artifactId == "log4j-core")
        binding = f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j}"
        artifacts.append(maven.create_dependency(binding).artifact)
        with ThreadPoolExecutor(8) as pool:
            files = list(pool.map(lambda artifact: Path(artifact.resolve()), artifacts))
        lines = [
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {a.groupId}:{a.artifactId}:{a.version}"
            for a, file in zip(artifacts, files, strict=True)
        ]
    LOCK.write_text("# Written by infra/lock_kafka.py\n" + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(lines)} jars of Apache Kafka {version}")


if __name__ == "__main__":
    main(sys.argv[1])

# Everything starts here. `make demo` and `make test` bring what they need; testbed/README.md says how.
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test check e2e dist bench truth generate FORCE

help:
	@echo 'make demo       from nothing to round-trip times: cluster, images, chart, a network (first time: about 20 minutes)'
	@echo 'make demo-down  stop the demo, and leave nothing behind'
	@echo 'make test       every check and test, the end-to-end tests on a fresh cluster included'
	@echo 'make check      the part of it that needs no cluster'
	@echo 'make e2e        the end-to-end tests alone; the cluster stays up afterwards (testbed/cluster down)'
	@echo 'make dist       both programs, static, in dist/'
	@echo 'make bench      measure what PeerNet promises'
	@echo 'make truth      the numbers beside packet captures, raw round trips and real faults: writes docs/truth.md'
	@echo 'make generate   write the CustomResourceDefinition anew from the types'
	@echo
	@echo 'With KUBECONFIG set, demo, test and e2e use that cluster, and the images that PEERNET_OPERATOR_IMAGE and'
	@echo 'PEERNET_NODE_IMAGE name; tests that break the cluster or reach into it are skipped.'

demo:
	@testbed/demo

demo-down:
	@testbed/demo down

test:
	@testbed/test all

check:
	@testbed/test check

e2e:
	@testbed/test e2e

bench:
	@testbed/bench

truth:
	@testbed/truth

# Static, so that they run FROM scratch. Each in a folder of its own: built together, each would get the other's features, and in
# one folder the second would wait for the first, though optimising either keeps one processor busy (`make --jobs=2 dist`).
# FEATURES: for cargo, as `--no-default-features --features quic`.
TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)

dist: dist/peernet-node dist/peernet-operator

dist/peernet-%: FORCE
	+RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TRIPLE) --target-dir $(TARGET_DIR)/$* \
		-p peernet-$* $(FEATURES)
	install -D $(TARGET_DIR)/$*/$(TRIPLE)/release/peernet-$* $@

# The chart carries the same bytes; tests fail when types, file and chart differ.
generate:
	cargo run --quiet -p peernet-api --bin crdgen > crds/peernetworks.yaml.new
	mv crds/peernetworks.yaml.new crds/peernetworks.yaml
	cp crds/peernetworks.yaml charts/peernet/files/peernetworks.yaml

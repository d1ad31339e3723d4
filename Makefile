# One command each; all of them work on a fresh clone.

CARGO ?= cargo
# Tests mostly wait for servers, so more of them run at once than there are cores.
export RUST_TEST_THREADS ?= 4

.PHONY: all demo demo-script test soak bench micro overhead compare servers fmt lint clean

all:
	$(CARGO) build --release

# Two real servers, both daemons, and a menu.
demo:
	$(CARGO) build
	./target/debug/mmrepl demo

demo-script:
	$(CARGO) build
	./target/debug/mmrepl demo --script

# Everything that must hold before a change lands. A machine that does not reach npm has no PostgreSQL
# 14, which tools/postgres.sh lets pass: it is said here once more, where the tests' output ends.
test: servers lint
	@majors=$$(tools/postgres.sh --list); \
		MMREPL_REQUIRE_MAJORS="$$majors" $(CARGO) test --all-features --no-fail-fast && \
		case " $$majors" in *' 14 '*) ;; *) echo '*** Everything passed, PostgreSQL 14 left out ***' ;; esac

# The long forms: 200 faults, a minute of pgbench at scale 10, 2 million rows, 5000 tables, 10,000
# edits in turn and as many at once; each trouble looked at for a minute; 100 acts of operators; millions of histories in
# the model.
soak: servers
	MMREPL_MODEL_HISTORIES=1000000 MMREPL_MODEL_EXHAUSTIVE=1 $(CARGO) test --release --test model
	MMREPL_CHAOS_FAULTS=$${MMREPL_CHAOS_FAULTS:-200} MMREPL_PGBENCH_SECONDS=60 MMREPL_LARGE=1 \
		MMREPL_TRUTH_SECONDS=60 MMREPL_OPERATOR_ACTS=100 \
		MMREPL_CONFLICT_ROUNDS=10000 MMREPL_CONFLICT_EDITS=10000 \
		RUST_TEST_THREADS=1 $(CARGO) test --release --all-features --test it -- \
		--nocapture chaos:: operators:: pgbench:: large:: truth:: truth_setup:: \
		back_and_forth_edits_are_no_conflict::pg19 every_concurrent_edit_is_recorded::pg19

# The same backlogs through the server's own subscription, pglogical and mmrepl, then latency, rates, a slow
# network and conflicts: hours; benches/drain/main.rs says how to run a part. ARGS=--write replaces the document.
bench: servers
	tools/pglogical.sh
	$(CARGO) bench --bench drain -- $(ARGS)

# The daemon's own work without servers, and what it allocates.
micro:
	$(CARGO) bench --bench micro

# What an application's own writes cost in replicated tables, beside a plain one; a few minutes for each
# major. benches/overhead/main.rs says how to run a part.
overhead: servers
	$(CARGO) bench --profile dev --bench overhead

# The same conflicts through subscriptions, pglogical and mmrepl. ARGS=--write replaces the document.
compare: servers
	tools/pglogical.sh
	$(CARGO) bench --profile dev --bench compare -- $(ARGS)

# Real server binaries of majors 14 to 19, kept outside the tree.
servers:
	tools/postgres.sh

fmt:
	$(CARGO) fmt

# A toolchain without these components (rustup's minimal profile) says so and tests all the same.
lint:
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --check; \
		else echo 'skipped: cargo fmt is not installed (rustup component add rustfmt)'; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		$(CARGO) clippy --all-targets --all-features -- -D warnings; \
		else echo 'skipped: cargo clippy is not installed (rustup component add clippy)'; fi

clean:
	$(CARGO) clean

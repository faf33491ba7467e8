# One task runner. `make demo` and `make test` need Python >= 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(shell find proto -name '*.proto')
GENERATED := clients/python

.PHONY: proto
proto: $(VENV)/.ready ## regenerate the committed gRPC code from proto/
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I. \
		--plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=../$(BIN)/protoc-gen-mypy_grpc \
		--python_out=../$(GENERATED) --grpc_python_out=../$(GENERATED) \
		--mypy_out=quiet:../$(GENERATED) --mypy_grpc_out=quiet:../$(GENERATED) \
		$$(find . -name '*.proto' | sort)
	rm -f $(GENERATED)/buf/validate/validate_pb2_grpc.py*

// Package docker runs members in containers, with nothing but the docker command.
//
//	go test -tags docker -v ./test/docker
//
// It takes the docker command and root. Where an engine answers, that one is used: everything made there
// carries the name of the run and is removed. Otherwise the test starts dockerd in a sandbox, with its own
// network, mounts and processes, so that nothing of it is seen or left outside.
//
// Without the tag only the files are read that describe the image and the compose project.
package docker

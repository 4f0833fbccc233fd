go test -c -o /tmp/s.test . && /tmp/s.test -test.run TestTune -test.v | grep "| "

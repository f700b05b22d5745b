package httpd_test

import (
	"testing"

	"github.com/quorate/quorate/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m, patience) }

module buildonce/shim

go 1.21

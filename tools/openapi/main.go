// Command openapi says whether a file is a valid OpenAPI document, by another's judgement than that of whoever wrote it.
package main

import (
	"fmt"
	"os"

	_ "github.com/oapi-codegen/runtime" // generated clients stand on it
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

func main() {
	if err := validate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func validate(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	document, err := libopenapi.NewDocument(text)
	if err != nil {
		return err
	}
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		return errs[0]
	}
	if valid, faults := v.ValidateDocument(); !valid {
		for _, f := range faults {
			fmt.Println(f.Message, f.Reason)
			for _, s := range f.SchemaValidationErrors {
				fmt.Println("   ", s.Reason)
			}
		}
		return fmt.Errorf("%s is not valid", path)
	}
	return nil
}

// Renders a containerd template as K3s does: the user's text is the template, and "base" names the
// one that K3s brings. Usage: render USER BASE DATA, where DATA is JSON.
package main

import (
	"encoding/json"
	"log"
	"os"
	"text/template"
)

func main() {
	read := func(path string) []byte {
		content, err := os.ReadFile(path)
		if err != nil {
			log.Fatal(err)
		}
		return content
	}
	var data map[string]any
	if err := json.Unmarshal(read(os.Args[3]), &data); err != nil {
		log.Fatal(err)
	}
	rendered := template.Must(template.New("user").Parse(string(read(os.Args[1]))))
	template.Must(rendered.New("base").Parse(string(read(os.Args[2]))))
	if err := rendered.Execute(os.Stdout, data); err != nil {
		log.Fatal(err)
	}
}
